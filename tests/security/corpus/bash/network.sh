# tries: the network with what a shell has
# passes: no interface but lo, no route, and no connection
# fails: a connection opens, or there is an interface with a way out
interfaces=$(sed -n 's/^ *\([^:]*\):.*/\1/p' /proc/net/dev | grep -v '^lo$')
routes=$(awk 'NR > 1' /proc/net/route)
for address in 1.1.1.1/53 8.8.8.8/443 169.254.169.254/80 10.0.2.2/22 172.16.0.1/80; do
  if (exec 3<>"/dev/tcp/$address") 2>/dev/null; then opened="$opened $address"; fi
done
if [ -n "$interfaces$routes$opened" ]; then
  echo "ISOLATION fail: interfaces: $interfaces; routes: $routes; connections:$opened"
else
  echo "ISOLATION pass: no interface, no route, no connection"
fi
