# Warnings: which are shown, and how.
warn "of the script"
warn "with a place", uplevel: 0
CONSTANT = 1
CONSTANT = 2
p Warning[:deprecated], Warning[:experimental], $VERBOSE
def unused = (x = 1; nil)
p((1 if nil =~ /x/))
warn "deprecated", category: :deprecated
