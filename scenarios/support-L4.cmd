# L4: an archived cluster has no machine and no disk of its control plane; it answers, and is in its backup.
start
create c1 np1=1
settle
object c1 v1/ConfigMap kept
wait 60
trace
archive c1
settle
wait 5
settle
trace
show c1
world
# Neither time nor another process of the service changes that. Little may be asked of it.
pool c1 np1 3
kill
start
settle
wait 100000
settle
trace
# Any PUT of it brings it back, with what it had.
tier c1 Standard
settle
show c1
object c1 v1/ConfigMap
operations
# Three members; a start brings it back as well.
wait 60
archive c1
settle
wait 5
settle
trace
power c1 on
settle
object c1 v1/ConfigMap
show c1
# Who starts it at once takes the archive back.
archive c1
power c1 on
settle
show c1
told c1
