# Children, pipes, substitutions, coprocesses.
echo "$(echo sub $BASH_SUBSHELL $SHLVL)" | tr a-z A-Z
(exit 5); echo $?
diff <(echo a) <(echo b)
coproc cat
echo through >&"${COPROC[1]}"
read -r line <&"${COPROC[0]}"
echo "$line ${COPROC[*]}"
eval "exec ${COPROC[1]}>&-"
{ sleep 0.01; echo background; } &
wait
false | true | false
echo "${PIPESTATUS[*]}"
python3 -c 'import sys, os; print(sys.argv, sys.path, sorted(os.environ))' x
exec echo replaced
