# tries: to come back: start files of shells and interpreters, cron, preloads, path entries for whoever runs next
# passes: none of an earlier run is in force in a new machine
# fails: a start file of an earlier run ran
# runs: 2
import os
import sysconfig

mark = "RUNNER_CODES_CAME_BACK"
came_back = mark in os.environ or os.path.exists("/tmp/came-back")
home = os.path.expanduser("~")
line = f"export {mark}=1\ntouch /tmp/came-back\n"
for path in (
    f"{home}/.bashrc", f"{home}/.profile", f"{home}/.bash_profile", f"{home}/.pythonrc", "/etc/profile.d/x.sh", "/etc/ld.so.preload",
    "/etc/cron.d/x", "/var/spool/cron/crontabs/runner", f"{sysconfig.get_path('purelib')}/x.pth", "/etc/environment", "/job/sitecustomize.py",
):
    try:
        with open(path, "a") as file:
            file.write(line)
    except OSError:
        pass
print("ISOLATION fail: a start file of an earlier run ran" if came_back else "ISOLATION pass: nothing came back")
