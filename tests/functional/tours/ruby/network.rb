# The network that there is: this machine's own.
require "net/http"
require "open-uri"
require "resolv"
require "socket"

def check(condition) = condition || raise("a check failed at #{caller.first}")

TCPServer.open("127.0.0.1", 0) do |server|
  Thread.new { client = server.accept; client.write(client.gets); client.close }
  TCPSocket.open("127.0.0.1", server.addr[1]) do |client|
    client.setsockopt(:TCP, :NODELAY, 1)
    client.puts("echo")
    check client.read == "echo\n"
  end
end
UNIXServer.open("/tmp/tour-ruby.sock") do |server|
  UNIXSocket.open("/tmp/tour-ruby.sock") do |client|
    peer = server.accept
    peer.send_io($stdout)
    check client.recv_io.fileno > 2
  end
end
one, other = UDPSocket.new, UDPSocket.new
one.bind("127.0.0.1", 0)
other.send("datagram", 0, "127.0.0.1", one.addr[1])
check one.recvfrom(100)[0] == "datagram"
left, right = UNIXSocket.pair(:SEQPACKET)
left.sendmsg("message")
check right.recvmsg[0] == "message"
check Addrinfo.getaddrinfo("localhost", 80).any? && Socket.gethostname && Socket.getifaddrs.any? { _1.name == "lo" }
check Resolv::Hosts.new.getaddress("localhost")
server = TCPServer.new("127.0.0.1", 0)
answering = Thread.new do
  2.times do
    client = server.accept
    path = client.gets.split[1]
    nil until client.gets == "\r\n"
    client.write("HTTP/1.1 200 OK\r\nContent-Length: #{path.size}\r\nConnection: close\r\n\r\n#{path}")
    client.close
  end
end
url = "http://127.0.0.1:#{server.addr[1]}"
check Net::HTTP.get(URI("#{url}/got")) == "/got" && URI.open("#{url}/opened").read == "/opened"
answering.join
puts "done"
