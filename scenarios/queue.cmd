# Requests queue and merge: nobody is sent away with 409 because something is under way. Each operation ends with its own wish.
start
create c1 np1=1
pool c1 np1 2
pool c1 np2 1
pool c1 np1 3
label c1 np2 team=blue
settle
show c1
operations
# What contradicts an earlier wish ends it; what does not leaves it alone.
pool c1 np1 5
wait 1
pool c1 np1 1
pool c1 np2 2
settle
show c1
operations
