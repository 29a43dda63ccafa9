# A store is put back from a copy: what happened later is unknown and kept, what is known becomes as it was, and what follows is heard.
start
create c1 np1=2
create c2 np1=1
settle
object c1 before 1
copy-store
ail control-plane-0 ends:kube-scheduler process
wait 60
pool c1 np1 3
create c3 np1=1
object c1 later 2
settle
stop
trace
put-back-store
start
wait 700
unknown
show c1
show c2
show c3
object c1 before
object c1 later
trace
ail control-plane-0 ends:kube-scheduler process
wait 60
settle
trace
create c3 np1=1
pool c1 np1 3
settle
show c1
unknown
