print("neighbour is imported as", __name__, __file__)
VALUE = 42
