# A control plane grows: of its etcd's two voters one loses its disk while the third member is a learner still. Two of three members have
# data, but no vote of the learner's makes a majority: the state comes back from the backup.
start
create c1 np1=1
settle
object c1 note kept
tier c1 Standard
wait 0.5
ail control-plane-2 deaf:etcd process
wait 30
vanish control-plane-0
settle
show c1
object c1 note
operations
