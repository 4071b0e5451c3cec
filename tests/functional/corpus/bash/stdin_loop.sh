# Standard input in a loop, with a last line that does not end.
while IFS= read -r line || [[ -n $line ]]; do echo "[$line]"; done
mapfile -t lines </proc/self/fd/0
echo "${#lines[@]} ${lines[0]}"
