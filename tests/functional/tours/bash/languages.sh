# A shell starts anything: the other languages have to run under its filter too.
set -eu
python3 - <<'PYTHON'
import concurrent.futures, numpy, sqlite3, subprocess
assert numpy.ones((50, 50)).dot(numpy.ones((50, 50))).sum() == 125000
with concurrent.futures.ThreadPoolExecutor(2) as pool:
    assert list(pool.map(abs, [-1, -2])) == [1, 2]
assert subprocess.check_output(["echo", "x"]) == b"x\n"
PYTHON
node -e 'const { execSync } = require("child_process"); if (execSync("echo x") != "x\n") process.exit(1)'
ruby -e 'exit `echo x` == "x\n" && Thread.new { 1 }.value == 1'
perl -e 'exit !(`echo x` eq "x\n")'
echo done
