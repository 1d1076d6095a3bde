"""The generators that write the training text of Quire's tiny model."""
