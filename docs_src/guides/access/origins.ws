# the page of your shop
> connect /
> header origin: https://shop.example.com
< accept
> text tea
< text Ordered: tea
> close 1000
