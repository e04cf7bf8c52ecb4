from .page import notebook_view as notebook_view
from .page import write_report as write_report
from .task_map import DUPLICATE_RATIO as DUPLICATE_RATIO
from .task_map import TaskMap as TaskMap
from .task_map import map_page as map_page
from .task_map import map_tasks as map_tasks
