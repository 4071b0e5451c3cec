# tries: to become root with setuid programs
# passes: this is not root, cannot gain privileges, and no setuid program changes that
# fails: the user id is 0, no_new_privs is off, a capability is there, or a program gave root
[ "$(id -u)" = 0 ] && { echo "ISOLATION fail: this is root"; exit; }
grep -q '^NoNewPrivs:[[:space:]]*1' /proc/self/status || { echo "ISOLATION fail: no_new_privs is off"; exit; }
for set in CapInh CapPrm CapEff CapBnd CapAmb; do
  value=$(sed -n "s/^$set:[[:space:]]*//p" /proc/self/status)
  [ "$((16#$value))" = 0 ] || { echo "ISOLATION fail: $set is $value"; exit; }
done
programs=$(find / -xdev -perm /6000 -type f 2>/dev/null)
for program in $programs; do
  case $program in
    */su) got=$("$program" -c 'id -u' </dev/null 2>/dev/null) ;;
    */newgrp | */sg) got=$("$program" root -c 'id -u' </dev/null 2>/dev/null) ;;
    */mount) "$program" -t tmpfs none /mnt 2>/dev/null && got=0 ;;
    *) got= ;;
  esac
  [ "$got" = 0 ] && { echo "ISOLATION fail: $program gave root"; exit; }
done
cp /bin/bash mine && chmod 6755 mine 2>/dev/null
[ "$(./mine -p -c 'id -u')" = 0 ] && { echo "ISOLATION fail: a setuid copy gave root"; exit; }
echo "ISOLATION pass: $(wc -w <<<"$programs") setuid programs give nothing"
