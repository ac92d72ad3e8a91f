> connect /edit?token=s3cret
< accept
< text Hello, ann.
< close 1000
