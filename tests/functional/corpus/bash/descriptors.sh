# Open descriptors: as many as ever, and the first to be opened has the same number.
exec {descriptor}</dev/null
echo "$descriptor"
ls /proc/$$/fd
readlink /proc/$$/fd/255
grep -E '^(Threads|Sig[IBC]|NoNew)' /proc/$$/status
ulimit -n
