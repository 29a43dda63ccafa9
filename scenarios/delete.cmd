# A cluster goes without a trace, whatever was going on.
start
create c1 np1=2
wait 1
delete c1
settle
trace
operations
create c2 np1=2
settle
pool c2 np1 1
delete c2
settle
operations
records
