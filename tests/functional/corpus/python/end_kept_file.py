f=open('/tmp/zz','w'); f.write('abc'); import builtins; builtins.f=f; del f
