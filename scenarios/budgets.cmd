# A client that reads without end is told when to come back, and loses nothing but time. The service's own work goes on.
budgets reads=20+2
start
create c1 np1=1
settle
wait 60
reads c1 30
reads c1 1
wait 1
reads c1 30
# What is not counted: its writes.
pool c1 np1 1
# Who stays below the rate is always served.
wait 60
reads c1 20
wait 5
reads c1 10
# A restart fills the buckets.
reads c1 1
stop
start
reads c1 20
# Without budgets nobody is refused.
stop
budgets
start
reads c1 100
