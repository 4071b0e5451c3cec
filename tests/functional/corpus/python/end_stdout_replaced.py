import sys
class S:
    def write(self,x): sys.__stdout__.write(x.upper())
    def flush(self): sys.__stdout__.write('flushed\n')
sys.stdout=S(); print('abc')
