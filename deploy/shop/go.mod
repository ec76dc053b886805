module serinus.dev/shop

go 1.24
