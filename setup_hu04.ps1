# Does on Windows what setup_hu04.sh does elsewhere: creates .venv, installs raudo into it, and on
# request runs the demo (-Demo) or the linters and the tests (-Test).
# PYTHON names the Python to use; RAUDO_PIP_ARGS holds more arguments for 'pip install'.
[CmdletBinding()] # an option that does not exist is an error
param([switch]$Demo, [switch]$Test)

$ErrorActionPreference = "Stop"
$PSNativeCommandUseErrorActionPreference = $false # what programs end with is looked at here
Set-Location $PSScriptRoot
$VenvPython = ".venv\Scripts\python.exe"

function Stop-Setup($Message, $Code = 2) {
    [Console]::Error.WriteLine("setup_hu04: $Message")
    exit $Code
}

function Test-Recent($Python) {
    if (-not (Get-Command $Python -ErrorAction SilentlyContinue)) { return $false }
    return (& $Python -c "import sys; print(sys.version_info >= (3, 10))") -eq "True"
}

function Find-Python {
    $Candidates = @("py", "python", "python3")
    if ($env:PYTHON) { $Candidates = @($env:PYTHON) }
    foreach ($Candidate in $Candidates) {
        if (Test-Recent $Candidate) { return $Candidate }
    }
    Stop-Setup "no Python 3.10 or newer was found ($Candidates); install one from python.org"
}

function Install-Raudo($Kind, $Extras) {
    if (-not (Test-Recent $VenvPython)) {
        $Python = Find-Python
        & $Python -m venv --clear .venv
        if ($LASTEXITCODE -ne 0) { Stop-Setup "$Python could not create .venv" }
    }
    Write-Host "Installing raudo[$Extras]: some minutes the first time"
    $PipArgs = @("$env:RAUDO_PIP_ARGS".Split(" ", [StringSplitOptions]::RemoveEmptyEntries))
    & $VenvPython -m pip install --disable-pip-version-check @PipArgs "pip>=23" -e ".[$Extras]"
    if ($LASTEXITCODE -ne 0) { Stop-Setup "pip could not install raudo; its message is above" }
    Set-Content ".venv\installed-$Kind" (Get-Fingerprint)
}

function Get-Fingerprint {
    return (Get-FileHash pyproject.toml).Hash + " $PSScriptRoot"
}

function Test-Installed($Kind) {
    $Stamp = ".venv\installed-$Kind"
    return (Test-Path $VenvPython) -and (Test-Path $Stamp) -and ((Get-Content $Stamp) -eq (Get-Fingerprint))
}

function Invoke-InVenv($Program) {
    & ".venv\Scripts\$Program.exe" @args
    if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE }
}

if ($Test) {
    if (-not (Test-Installed "test")) { Install-Raudo "test" "all,dev" }
} elseif (-not ((Test-Installed "test") -or (Test-Installed "demo"))) {
    Install-Raudo "demo" "torch,onnx,openvino,report"
}
if (-not (Test-Path model.pt)) {
    Copy-Item samples\model.pt model.pt
    Write-Host "model.pt was missing: it is now a copy of samples\model.pt; put your own in its place"
}
if ($Test) {
    Invoke-InVenv ruff check .
    Invoke-InVenv ruff format --check .
    Invoke-InVenv mypy
    Invoke-InVenv pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0
} elseif ($Demo) {
    Invoke-InVenv raudo optimize samples\model.pt --data samples\coco-mini\data.yaml
} else {
    Write-Host "raudo is installed; next: .venv\Scripts\Activate.ps1, then: raudo doctor"
}
