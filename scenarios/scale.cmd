# Up takes the lowest free numbers and addresses, down the highest numbers first.
start
create c1 np1=1
settle
pool c1 np1 3
settle
show c1
trace
pool c1 np1 1
settle
show c1
trace
pool c1 np1 2
settle
show c1
operations
