echo before
kill -INT $$
echo never
