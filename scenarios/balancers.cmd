# Services of type LoadBalancer: an address each, kept as long as the Service is there, leading to the nodes that work and stay.
start
create c1 np1=2
settle
trace
services c1
service c1 web 80,443
service c1 own 80 internal
settle
services c1
trace
show c1
# A node that is told to go leaves before it is drained.
pool c1 np1 1
settle
services c1
trace
pool c1 np1 3
settle
services c1
# A node that is gone leaves, and comes back when it is made anew.
vanish vmss000001
wait 3
services c1
heal
settle
services c1
# Only where its endpoints are.
service c1 near 80 local on=vmss000002
settle
services c1
service c1 near 80 local on=vmss000000
settle
services c1
# An address that somebody has is nobody else's, of whatever cluster.
service c1 first 80 address=100.64.8.20
settle
create c2 np1=1
settle
service c2 second 80 address=100.64.8.20
settle
services c2
drop-service c1 first
settle
# It is tried again within a minute.
wait 61
settle
services c2
# The service goes and comes: whoever is in rotation stays there.
kill
wait 60
start
settle
services c1
# The API is away: nothing changes.
stall c1
wait 10
services c1
unstall c1
settle
# A call that fails is made again; so is one whose answer was lost.
fail set-service 2
service c1 web 80
settle
fail-after set-service 2
drop-service c1 web
settle
services c1
# Stopped, they keep their addresses.
power c1 off
settle
power c1 on
settle
services c1
# They go with their cluster.
delete c1
delete c2
settle
records
