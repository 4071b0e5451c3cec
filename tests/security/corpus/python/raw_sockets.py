# tries: raw and packet sockets, and families that few programs need and that had many bugs
# passes: none can be made
# fails: one can
import errno
import socket

FAMILIES = {
    "packet": (17, socket.SOCK_RAW, 0x0300), "raw IPv4": (2, socket.SOCK_RAW, 255), "raw IPv6": (10, socket.SOCK_RAW, 58),
    "ICMP": (2, socket.SOCK_RAW, 1), "AF_ALG": (38, socket.SOCK_SEQPACKET, 0), "XDP": (44, socket.SOCK_RAW, 0),
    "Bluetooth": (31, socket.SOCK_RAW, 1), "CAN": (29, socket.SOCK_RAW, 1), "TIPC": (30, socket.SOCK_RDM, 0), "key": (15, socket.SOCK_RAW, 2),
    "SMC": (43, socket.SOCK_STREAM, 0), "RDS": (21, socket.SOCK_SEQPACKET, 0), "KCM": (41, socket.SOCK_DGRAM, 0), "QIPCRTR": (42, socket.SOCK_DGRAM, 0),
}
worked, reasons = [], set()
for name, (family, kind, protocol) in FAMILIES.items():
    try:
        socket.socket(family, kind, protocol).close()
        worked.append(name)
    except OSError as error:
        reasons.add(errno.errorcode[error.errno])
print(f"ISOLATION fail: {', '.join(worked)}" if worked else f"ISOLATION pass: {', '.join(sorted(reasons))}")
