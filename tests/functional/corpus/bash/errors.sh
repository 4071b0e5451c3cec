# Messages name the script and its lines.
absent_command ünï
cd /absent
./absent
echo $((1 / 0))
echo "$? after"
local x=1
readonly constant=1
constant=2
echo "$?"
/etc
exit 300
