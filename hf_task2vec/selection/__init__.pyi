from .limits import Constraints as Constraints
from .ranking import Candidate as Candidate
from .ranking import Ranking as Ranking
from .ranking import known as known
from .ranking import percent as percent
from .recommendation import check_descriptors as check_descriptors
from .select import select_backbone as select_backbone
