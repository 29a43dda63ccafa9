# S1: where deadlines act, the clusters of a subscription that is disabled are stopped at once. They stay stopped until somebody starts them.
start
create c1 np1=1
settle
object c1 v1/ConfigMap kept
wait 5
subscription off
wait 5
told c1
# The stamp only tells, unless an operator says otherwise.
deadlines act
wait 5
by-policy c1
settle
show c1
told c1
support c1 aks 89
# Reinstated: nothing is deleted, and it comes back when it is started.
subscription on
settle
show c1
power c1 on
settle
object c1 v1/ConfigMap
show c1
