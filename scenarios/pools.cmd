# Pools come and go; a pool made anew under the same name gets nodes of other names; labels change in place.
start
create c1 np1=1 plugin=overlay
settle
pool c1 np2 2
settle
show c1
label c1 np2 team=blue
settle
trace
# Deleted and made again before anything happened.
drop c1 np2
pool c1 np2 2
settle
show c1
drop c1 np2
settle
show c1
operations
