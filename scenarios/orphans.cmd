# What is in no record of the store is kept and shown, at start and in the course of every resync, until somebody says that it may go.
orphans
start
create c1 np1=1
settle
trace
unknown
orphans
wait 400
settle
unknown
trace
may-go machine
may-go network
wait 400
settle
unknown
trace
