from .build import Cluster as Cluster
from .build import build_index as build_index
from .harvest import Harvest as Harvest
from .harvest import harvest as harvest
from .own_scores import add_score as add_score
from .own_scores import open_index as open_index
