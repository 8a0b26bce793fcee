"""Projects: what groups tasks and instructs the agent."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response

from core import frames, projects
from core.models import JSON, Project
from web import schemas
from web.credentials import Caller
from web.parameters import no_repeats
from web.problems import documented
from web.services import services_of

router = APIRouter(prefix="/api/projects", tags=["projects"], dependencies=[Depends(no_repeats)])
Key = Annotated[str, Path(max_length=64, description="The project's key, which begins the refs of its tasks.", examples=["OT"])]


@router.get("", response_model=schemas.Projects)
async def list_projects(request: Request, caller: Caller) -> JSON:
    """All projects, the oldest first."""
    async with services_of(request).storage.read() as uow:
        return {"projects": [_project_json(each) for each in await projects.page(uow, caller)]}


@router.post("", status_code=201, response_model=schemas.Project, responses=documented(409))
async def create_project(request: Request, response: Response, caller: Caller, body: schemas.NewProject) -> JSON:
    """Make a project. Only admins may."""
    async with services_of(request).storage.write() as uow:
        project = await projects.add(uow, caller, body.key, body.name, instructions=body.instructions, model=body.model)
    response.headers["Location"] = f"/api/projects/{project.key}"
    return _project_json(project)


@router.get("/{key}", response_model=schemas.Project)
async def get_project(request: Request, caller: Caller, key: Key) -> JSON:
    """One project, as it stands."""
    async with services_of(request).storage.read() as uow:
        return _project_json(await projects.read(uow, caller, key))


@router.patch("/{key}", response_model=schemas.Project)
async def change_project(request: Request, caller: Caller, key: Key, body: schemas.ProjectPatch) -> JSON:
    """Change its name, instructions or model. Only admins may."""
    async with services_of(request).storage.write() as uow:
        return _project_json(await projects.edit(uow, caller, key, body.model_dump(exclude_unset=True)))


def _project_json(project: Project) -> JSON:
    return {
        "key": project.key,
        "name": project.name,
        "instructions": project.instructions,
        "model": project.model,
        "created_at": frames.time_json(project.created_at),
        "updated_at": frames.time_json(project.updated_at),
    }
