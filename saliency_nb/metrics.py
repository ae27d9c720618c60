"Stub until chapter 03 lands"
import torch
def _p(S): S=S.flatten(1).double(); return S/S.sum(1,keepdim=True)
def cc(S,D):
    a,b=S.flatten(1).double(),D.flatten(1).double(); a=a-a.mean(1,keepdim=True); b=b-b.mean(1,keepdim=True)
    return (a*b).sum(1)/(a.norm(dim=1)*b.norm(dim=1)+1e-30)
def nss(S,F):
    S=S.flatten(1).double(); f=(F.flatten(1)>0).double(); z=(S-S.mean(1,keepdim=True))/(S.std(1,keepdim=True)+1e-30); return (z*f).sum(1)/f.sum(1)
def kld(S,D): p,q=_p(S),_p(D); e=2.2204e-16; return (q*torch.log(e+q/(p+e))).sum(1)
def sim(S,D): return torch.minimum(_p(S),_p(D)).sum(1)
def auc_judd(S,F):
    out=[]
    for s,f in zip(S.flatten(1),F.flatten(1)>0):
        pos=s[f].sort().values; n=len(pos); 
        neg=s[~f]; lo=torch.searchsorted(pos,neg,right=False); hi=torch.searchsorted(pos,neg,right=True)
        out.append(1-((lo+hi).double()/2).mean()/n)
    return torch.stack(out)
def saliency_loss(S,D,F):
    S,f,D=S.flatten(1),(F.flatten(1)>0).float(),D.flatten(1)
    p=S/(S.sum(1,keepdim=True)+1e-12); q=D/D.sum(1,keepdim=True)
    k=(q*torch.log(q/(p+2.2e-16)+2.2e-16)).sum(1)
    z=(S-S.mean(1,keepdim=True)); z=z/(S.std(1,keepdim=True)+1e-8)
    n=(z*f).sum(1)/f.sum(1).clamp(min=1)
    d=q-q.mean(1,keepdim=True); c=p-p.mean(1,keepdim=True)
    r=(d*c).sum(1)/(d.norm(dim=1)*c.norm(dim=1)+1e-12)
    return (10*k-2*r-n).mean()
