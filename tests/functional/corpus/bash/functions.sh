# Arrays, a here-document, arithmetic, patterns, a stack of calls.
declare -A map=([one]=1 [two]=2)
list=(a "b c" d)
echo "${#map[@]} ${list[1]} ${list[*]:1}"
cat <<END
here $((2 ** 10)) ${list[0]^^}
END
outer() { inner; }
inner() { caller 0; caller 1; echo "${FUNCNAME[*]} ${BASH_LINENO[*]}"; }
outer
[[ abc =~ b(.) ]] && echo "${BASH_REMATCH[*]}"
shopt -s nullglob extglob
echo /job/*.absent /job/main.@(sh|py)
select choice in x y; do break; done <<<2
echo "$choice $REPLY"
