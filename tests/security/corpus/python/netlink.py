# tries: to set up an interface, an address and a route over netlink
# passes: all of it is refused
# fails: one is made
# timeout: 60
import errno
import socket
import struct

worked, reasons = [], set()


def ask(name, kind, flags, body, family=0):
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, family) as netlink:
            netlink.settimeout(2)
            netlink.bind((0, 0))
            netlink.send(struct.pack("=IHHII", 16 + len(body), kind, flags | 5, 1, 0) + body)
            answer = netlink.recv(4096)
        code = -struct.unpack("=i", answer[16:20])[0]
    except OSError as error:
        reasons.add(errno.errorcode.get(error.errno, "timeout"))
        return
    if code == 0:
        worked.append(name)
    else:
        reasons.add(errno.errorcode.get(code, str(code)))


# lo up, 10.1.1.1 for it, a default route, a new dummy interface (rtnetlink(7)).
ask("interface", 16, 0, struct.pack("=BxHiII", 0, 0, 1, 1, 1))
ask("address", 20, 0x600, struct.pack("=BBBBi", 2, 24, 0, 0, 1) + struct.pack("=HH4s", 8, 2, bytes([10, 1, 1, 1])))
ask("route", 24, 0x600, struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 3, 253, 1, 0) + struct.pack("=HHi", 8, 4, 1))
ask("new interface", 16, 0x600, struct.pack("=BxHiII", 0, 0, 0, 0, 0) + struct.pack("=HHHH8s", 20, 18, 16, 1, b"dummy\0\0\0"))
ask("firewall", 0x0A00, 0x600, struct.pack("=BBH", 2, 0, 0), 12)
print(f"ISOLATION fail: {', '.join(worked)}" if worked else f"ISOLATION pass: {', '.join(sorted(reasons))}")
