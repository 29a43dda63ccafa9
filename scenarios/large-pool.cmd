# A large pool comes and goes in several transactions: no store takes any number of records in one.
start
create c1 np1=60
settle
pool c1 np1 2
settle
show c1
operations
delete c1
settle
