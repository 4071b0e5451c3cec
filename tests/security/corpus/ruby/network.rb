# tries: connections to the metadata services of clouds, the gateway and the outside, with a listener of its own beside them
# passes: no address outside of the machine is reached
# fails: one is
require 'socket'
worked, reasons = [], []
%w[169.254.169.254 169.254.170.2 100.100.100.200 192.168.0.1 10.0.2.2 172.17.0.1 1.1.1.1 93.184.216.34].each do |host|
  begin
    Socket.tcp(host, 80, connect_timeout: 2) { worked << host }
  rescue SystemCallError, SocketError => error
    reasons << error.class.name.split('::').last
  end
end
puts worked.empty? ? "ISOLATION pass: #{reasons.uniq.sort.join(', ')}" : "ISOLATION fail: #{worked.join(', ')}"
