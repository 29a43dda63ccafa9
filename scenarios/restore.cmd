# What was there at a second is there again, and no more than that; what was wished of the cluster stays.
start
create c1 np1=2
settle
object c1 v1/ConfigMap before
wait 20
object c1 v1/ConfigMap after
object c1 v1/Secret new
wait 10
trace
restore c1 20
settle
object c1 v1/ConfigMap
object c1 v1/Secret
show c1
operations
trace
# Nodes that have gone since do not come back, and those that came since stay.
pool c1 np1 1
pool c1 np2 1
settle
trace
restore c1 20
settle
show c1
trace
# Three members: one restores, the others throw theirs away and join.
tier c1 Standard
settle
wait 60
trace
restore c1 30
settle
object c1 v1/ConfigMap
show c1
trace
# Another cluster with the state of this one, which stays as it is.
restore c1 10 c2
settle
object c2 v1/ConfigMap
show c2
# A second that is not there.
restore c1 100000
# All members lose their disks: the newest state comes back.
trace
vanish control-plane
settle
object c1 v1/ConfigMap
show c1
operations
