# Text and files with what every image has: coreutils, sed, awk, grep, find, tar, gzip.
set -euo pipefail
work=$(mktemp -d)
cd "$work"
seq 1 1000 >numbers
[[ $(sort -rn numbers | head -n 1) == 1000 && $(tail -n 1 numbers) == 1000 ]]
[[ $(grep -c 7 numbers) == 271 && $(wc -l <numbers) == 1000 ]]
[[ $(sed -n 's/^99\(.\)$/\1/p' numbers | tr -d '\n') == 0123456789 ]]
[[ $(awk '{ sum += $1 } END { print sum }' numbers) == 500500 ]]
[[ $(cut -c1 numbers | sort | uniq -c | sort -rn | head -n 1 | tr -s ' ') == ' 112 1' ]]
[[ $(paste -sd+ numbers | cut -c1-5) == 1+2+3 && $(printf 'a\nb\n' | tac | join - <(printf 'b\n')) == b ]]
split -l 100 numbers part-
cat part-* | cmp - numbers
sha256sum numbers >sums && sha256sum -c --quiet sums && md5sum numbers >/dev/null
[[ $(base64 <<<text | base64 -d) == text && $(od -An -tx1 <<<A | tr -d ' ') == 410a ]]
mkdir -p a/b/c && touch a/b/c/{1,2,3} && ln -s c a/b/link && ln a/b/c/1 a/b/hard && mkfifo pipe
[[ $(find a -type f | wc -l) == 4 && $(find a -name '[12]' -print0 | xargs -0 ls | wc -l) == 2 ]]
cp -a a copied && mv copied moved && diff -r a moved && rm -r moved
tar czf all.tar.gz a && mkdir unpacked && tar xzf all.tar.gz -C unpacked && diff -r a unpacked/a
gzip -k numbers && gzip -dc numbers.gz | cmp - numbers
dd if=/dev/zero of=zeros bs=4096 count=10 status=none && truncate -s 1M sparse && cp --sparse=always sparse other
[[ $(stat -c %s zeros) == 40960 && $(du -k zeros | cut -f1) -le 44 ]]
chmod 600 numbers && [[ $(stat -c %a numbers) == 600 ]] && touch -d @1 numbers && install -m 755 numbers installed
df . >/dev/null; sync numbers; id >/dev/null; date -u -d @0 +%Y | grep -q 1970; uname -a >/dev/null; nproc >/dev/null; env >/dev/null
expr 6 \* 7 | grep -qx 42; factor 97 | grep -q '97: 97'; shuf -i 1-10 | wc -l | grep -qx 10; realpath -e numbers >/dev/null
tee copy <numbers >/dev/null; fold -w 3 numbers | head -n 1 >/dev/null || true; sort -S 1M --parallel=2 numbers -o sorted
perl -e 'open my $f, "<", "numbers"; my $s; $s += $_ while <$f>; die unless $s == 500500; die unless `echo x` eq "x\n"'
cd / && rm -r "$work"
echo done
