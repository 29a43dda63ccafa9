# A disruption budget that permits no eviction: after the pool's drain timeout the node is uncordoned, the node added for the upgrade is
# removed, and the operation fails. A later request continues.
start
create c1 np1=3
settle
settings c1 np1 drain=5
settle
pods vmss000002 3
upgrade c1 1.37.1
wait 200
show c1
wait 300
show c1
operations
pods vmss000002 0
upgrade c1 1.37.1
settle
show c1

# The same with quarantine: the node is replaced by another one, the others are upgraded, and the operation reports it.
create c2 np1=3
settle
settings c2 np1 drain=5 undrainable=Cordon
settle
upgrade c2 1.37.1 control-plane
settle
pods vmss000001 2
upgrade c2 1.37.1
wait 600
show c2
world
operations
pods vmss000001 0
upgrade c2 1.37.1
settle
show c2

# A drained node is kept for the soak time before the next one begins; the operation does not fail for lack of time.
create c3 np1=3
settle
settings c3 np1 soak=15
settle
upgrade c3 1.37.1
wait 600
show c3
settle
show c3
operations

# Killed during a drain: the drain timeout is not extended.
create c4 np1=2
settle
settings c4 np1 drain=10
settle
pods vmss000001 1
upgrade c4 1.37.1
wait 400
kill
start
wait 300
show c4
operations
stop
