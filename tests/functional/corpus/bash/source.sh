# A file next to the script, sourced and run.
cd /
. "$(dirname "$0")/neighbour.sh" x
echo "$? $#"
bash /job/neighbour.sh
echo "$? $OLDPWD"
cd - && pwd
