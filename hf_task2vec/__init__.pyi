from .embedding import DISTANCES as DISTANCES
from .embedding import TaskEmbedding as TaskEmbedding
from .embedding import embed_task as embed_task
from .embedding import pairwise as pairwise
from .errors import Task2VecError as Task2VecError
from .evidence import build_index as build_index
from .fisher import diagonal_fisher as diagonal_fisher
from .fisher import fit_head as fit_head
from .metric import RankingMetric as RankingMetric
from .probes import Probe as Probe
from .probes import linear_probe as linear_probe
from .selection import Constraints as Constraints
from .selection import Ranking as Ranking
from .selection import select_backbone as select_backbone
from .sharing import search_hub as search_hub
from .tasks import Task as Task
from .zoo import ZooIndex as ZooIndex

__version__: str
