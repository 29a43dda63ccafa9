# A cluster's CAs are replaced: a step is taken once every machine has the one before, and no machine is made anew.
start
create c1 np1=2
create c2 np1=1 tier=Standard
settle
credential c1 Admin
settle
trace
rotate c1 certificates
wait 0.05
show c1
settle
show c1
trace
# A kubeconfig of before is not handed out again.
credential c1 Admin
settle
credentials c1
# Members take it one at a time. The service is killed in each step.
rotate c2 certificates
wait 1
kill
start
wait 100
kill
start
wait 60
kill
start
settle
show c2
# Asked for twice, and once more while the new ones issue.
rotate c1 certificates
rotate c1 certificates
wait 140
rotate c1 certificates
settle
show c1
# As long as the new ones issue nothing, an abort takes them back.
rotate c1 certificates
wait 1
abort c1
settle
show c1
# Another key of service accounts; the old one goes a day later.
trace
rotate c1 keys
settle
show c1
trace
wait 90000
settle
trace
# Stopped in the middle, it goes on after the start; what is stopped is refused.
rotate c1 certificates
wait 1
power c1 off
settle
rotate c1 certificates
power c1 on
settle
show c1
operations
