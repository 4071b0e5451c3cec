# Standard input: read, and what is left for a child.
read -r first second
echo "[$first] [$second]"
IFS= read -r line
echo "[$line]"
cat
echo
read -r line || echo "end [$line]"
