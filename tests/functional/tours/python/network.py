# The network that there is: this machine's own.
import array, http.client, http.server, os, socket, socketserver, ssl, threading, urllib.request, xmlrpc.client, xmlrpc.server

with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
    peer, address = server.accept()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(b"stream"), client.shutdown(socket.SHUT_WR)
    assert peer.recv(10, socket.MSG_PEEK) == b"stream" and peer.recv_into(bytearray(10)) == 6
    assert address == client.getsockname() and client.getpeername() == server.getsockname()
    peer.close()
if socket.has_ipv6:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
            socket.create_connection(server.getsockname()[:2]).close()
    except OSError:
        pass  # A kernel without IPv6.
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
    one.bind(("127.0.0.1", 0)), one.settimeout(5)
    other.sendto(b"datagram", one.getsockname())
    assert one.recvfrom(100)[0] == b"datagram"
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    pipe, end = os.pipe()
    socket.send_fds(ours, [b"take"], [end])
    message, descriptors, *_ = socket.recv_fds(theirs, 10, 1)
    os.write(descriptors[0], b"through")
    assert message == b"take" and os.read(pipe, 10) == b"through"
    assert len(theirs.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)) == 12
assert socket.getaddrinfo("localhost", 80) and socket.gethostname() and socket.inet_aton("127.0.0.1")
assert "lo" in [name for _, name in socket.if_nameindex()]
ssl.create_default_context(), ssl.RAND_bytes(16)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200), self.end_headers(), self.wfile.write(self.path.encode())

    def log_message(self, *_):
        pass


with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
    threading.Thread(target=server.serve_forever).start()
    url = f"http://127.0.0.1:{server.server_port}/path"
    assert urllib.request.urlopen(url).read() == b"/path"
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    connection.request("GET", "/other")
    assert connection.getresponse().read() == b"/other"
    connection.close(), server.shutdown()
with xmlrpc.server.SimpleXMLRPCServer(("127.0.0.1", 0), logRequests=False) as server:
    server.register_function(pow)
    threading.Thread(target=server.handle_request).start()
    assert xmlrpc.client.ServerProxy("http://127.0.0.1:%d" % server.server_address[1]).pow(2, 10) == 1024


class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(self.rfile.readline())


with socketserver.ThreadingUnixStreamServer("/tmp/tour-network.sock", Echo) as server:
    threading.Thread(target=server.serve_forever).start()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("/tmp/tour-network.sock"), client.sendall(b"echo\n")
        assert client.recv(10) == b"echo\n"
    server.shutdown()
print("done")
