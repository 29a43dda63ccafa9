# S1: a suspended subscription; its clusters would be deleted after 90 days (aks). L4: out of support for thirty days, the control plane may be archived.
start
create c1 np1=1
settle
subscription off
support c1 aks 0
support c1 aks 30

# S3: on hosts of one's own, out of support after 60 days.
support c1 hci 0
support c1 hci 60

# Reinstated.
subscription on
support c1 aks 0
support c1 hci 60
stop
