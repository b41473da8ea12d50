"""Model families: each turns one kind of model file into a module that obeys the contract."""
