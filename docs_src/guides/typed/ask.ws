> connect /
< accept
< json {"type": "ask", "id": "1", "question": "Your name?"}
> json {"type": "ask", "id": "a", "question": "What is the time?"}
> json {"type": "answer", "reply_to": "1", "text": "Ann"}
< json {"type": "answer", "reply_to": "a", "text": "I do not know, Ann."}
> json {"type": "answer", "reply_to": "1", "text": "again, and dropped"}
> close
