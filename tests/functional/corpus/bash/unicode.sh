# Text beyond ASCII, and the locale.
text='ünïcödé 漢字 🦀'
echo "$text ${#text} ${text:0:3} ${text^^}"
printf '%-8s|\n' ü
printf '%b' '\u00e9\n'
printf '%d\n' "'é"
echo "to stderr $text" >&2
printf '\xff\n'
echo "$LANG ${LC_ALL-unset}"
[[ ü == [[:alpha:]] ]] && echo alpha
