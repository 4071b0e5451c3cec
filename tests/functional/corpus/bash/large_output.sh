# More than any pipe holds, on both streams.
for ((number = 0; number < 20000; number++)); do
  echo "line $number xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
  ((number % 100)) || echo "$number" >&2
done
