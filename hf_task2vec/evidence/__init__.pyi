from .build import Cluster as Cluster
from .build import build_index as build_index
from .harvest import Harvest as Harvest
from .harvest import harvest as harvest
from .hub_tasks import add_tasks as add_tasks
from .hub_tasks import most_reported as most_reported
from .own_scores import add_score as add_score
from .own_scores import open_index as open_index
