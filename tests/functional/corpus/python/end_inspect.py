import os; os.environ['PYTHONINSPECT']='1'; print(3)
